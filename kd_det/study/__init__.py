"""Accuracy studies: train what a study file lists, record every finished run, say what the records show.

=======================  ====================================================================================
:mod:`.definition`       the study file: rows, seeds, teacher, base
:mod:`.configs`          the resolved config of a row
:mod:`.identity`         what identifies a run: a hash of its config and one of its weights
:mod:`.planning`         which runs are needed, and the command line of each
:mod:`.running`          train them side by side
:mod:`.finished`         what a finished run left in its work directory
:mod:`.evaluating`       evaluate its checkpoint, and keep the detections
:mod:`.recording`        the record of a finished run
:mod:`.importing`        a run that was trained outside the study
:mod:`.records`          read and write records
:mod:`.image_intervals`  intervals over evaluation images and error types, from the kept detections
:mod:`.table`            means, paired differences with intervals, share of the gap closed, as Markdown
:mod:`.breakdown`        differences by class and size of object, error types, as Markdown
=======================  ====================================================================================
"""
