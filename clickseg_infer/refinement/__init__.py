"""f-BRS: a feature map's scale and bias are adjusted until the answer agrees with the clicks."""
