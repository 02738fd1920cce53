"""The demo: HTTP over sessions, and the page that a browser opens. Needs the extra `demo`."""
