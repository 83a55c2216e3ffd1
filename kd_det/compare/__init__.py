"""What ``kd-det compare`` is made of: read finished runs, measure detectors, show both.

========================  =====================================================================
:mod:`.logs`              training curves and evaluation records of a work directory
:mod:`.runs`              from what the command line names to config, checkpoint, seed and log
:mod:`.accuracy`          AP figures of an evaluation record
:mod:`.evaluation`        run an evaluation, and keep the detections
:mod:`.detections`        detections of an evaluation set as a small file
:mod:`.matching`          detections matched to ground truth; COCO AP of any draw of images
:mod:`.bootstrap`         how far a difference depends on the evaluation images
:mod:`.error_types`       what kind of mistakes are made, and what each kind costs (TIDE)
:mod:`.student`           build the deployed detector of a config and load a checkpoint strictly
:mod:`.images`            the images on which detectors are measured
:mod:`.cost`              parameters, multiply-adds, latency
:mod:`.rows`              fold the seeds of one config, differences to the first row
:mod:`.table`             text, Markdown and JSON
:mod:`.plots`             AP against cost, and training curves, as PNG
:mod:`.report`            one HTML page with tables and charts
:mod:`.comparison`        all of it in order
========================  =====================================================================
"""


