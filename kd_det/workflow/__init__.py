"""``kd-det distill``: from a folder of images, a teacher and a student's config to a distilled student, stage by stage.

=====================  ===========================================================================
:mod:`.request`        what was asked for
:mod:`.methods`        the methods by name: which suits a pair, and which is taken by default
:mod:`.anchors`        the anchors' scale for objects of other sizes than COCO's
:mod:`.schedule`       batch size, epochs, learning rate
:mod:`.resolution`     how large student and teacher see the images
:mod:`.fine_tuning`    what of a teacher of other classes is taken over
:mod:`.config_text`    a config as a file that people read
:mod:`.configs`        the three configs
:mod:`.planning`       the stages, each a command that runs alone too
:mod:`.stages`         what is done, what goes on, what begins
:mod:`.estimate`       seconds a step, measured
:mod:`.running`        run what is missing
=====================  ===========================================================================
"""
