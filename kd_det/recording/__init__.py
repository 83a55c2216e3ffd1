"""Recording a teacher's answers before training: :func:`kd_det.recording.recorder.record`."""
