"""The names of GenEval's objects, colors and relations."""

_LIST = """\
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv,
laptop, computer mouse, tv remote, computer keyboard, cell phone, microwave, oven, toaster, sink,
refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"""

NAMES = tuple(" ".join(_LIST.splitlines()).split(", "))
"""The 80 kinds of objects of COCO in COCO's order; three have names of their own (computer mouse, tv remote, computer keyboard)."""

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
"""The colors that prompts ask for, and that crops are compared with."""

RELATIONS = ("left of", "right of", "above", "below")
"""How one object may lie relative to another."""
