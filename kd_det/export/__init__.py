"""Take the student away: as a plain MMDetection checkpoint, and as a verified ONNX file.

======================  ==========================================================================
:mod:`.plain_files`     config and checkpoint that need no kd_det
:mod:`.head_outputs`    how each dense head's logits become scores, and its numbers boxes
:mod:`.graph`           the network with those at its end, without NMS
:mod:`.two_stage_graph` Faster R-CNN likewise, with the NMS between its stages
:mod:`.onnx_file`       the ONNX file with its metadata, and the post-processing beside it
:mod:`.verify`          ONNX Runtime against PyTorch, after NMS, on images
:mod:`.onnx_detect`     the post-processing: NumPy alone; this file is copied beside the ONNX file
======================  ==========================================================================
"""
