// A folder of files as one: a tar archive (POSIX.1-1988, ustar), made of references to the files,
// so that nothing is read before it is sent.

const BLOCK = 512;

export function tarOf(files, name) {
  const parts = [];
  files.forEach((file, number) => {
    parts.push(header(`${number}.dcm`, file.size), file, new Uint8Array(-file.size & (BLOCK - 1)));
  });
  return new File([...parts, new Uint8Array(2 * BLOCK)], name);
}

function header(name, size) {
  const bytes = new Uint8Array(BLOCK);
  const write = (text, at) => bytes.set(new TextEncoder().encode(text), at);
  const octal = (value, digits) => value.toString(8).padStart(digits, "0");
  write(name, 0);
  write(octal(0o644, 7), 100);
  write(octal(size, 11), 124);
  write(octal(0, 11), 136);
  write(" ".repeat(8), 148); // the checksum counts as blanks
  write("0", 156);
  write("ustar\x0000", 257);
  write(`${octal(bytes.reduce((sum, byte) => sum + byte, 0), 6)}\0 `, 148);
  return bytes;
}
