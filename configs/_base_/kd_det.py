# Everything kd_det registers, and the ops where MMCV was installed without compiled ones.
custom_imports = dict(imports=['kd_det'], allow_failed_imports=False)
