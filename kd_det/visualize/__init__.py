"""Pictures of what detectors do, and of what is distilled.

=====================  ==========================================================================
:mod:`.subjects`       the runs that are looked at: deployed detectors, and distillers with their teacher
:mod:`.canvas`         boxes, captions, heat maps, panels side by side
:mod:`.detections`     ground truth and every detector's detections; the same by type of error (TIDE)
:mod:`.positives`      which priors teacher and student make positive for each object
:mod:`.features`       hint features before and after the adapter, and the teacher's
:mod:`.pictures`       all of them for a sample of images, as files
=====================  ==========================================================================
"""
