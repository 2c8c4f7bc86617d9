"""What became of one item of a request, and the small vocabularies of a request."""

import enum


class Status(enum.IntEnum):
    """Outcome of one item. Everything but `OK` has NaN in every score column."""

    OK = 0
    PARSE_ERROR = 1
    """a language model's answer was not the number that was asked for"""
    LOW_MASS = 2
    """the answers that count hold too little of the model's probability"""
    TIMEOUT = 3
    """the deadline passed before the score was there"""
    BAD_INPUT = 4
    """the item lacks what the scorer needs, e.g. a reference or a text"""
    SCORER_ERROR = 5
    """the scorer raised, or returned a number that is not finite"""
    SHED = 6
    """rejected under load; nothing was computed"""


class Role(enum.IntEnum):
    """What a frame is for the scorer."""

    CURRENT = 0
    START = 1
    """reference: how the episode began"""
    GOAL = 2
    """reference: what success looks like"""
    BEFORE = 3
    AFTER = 4
    REFERENCE = 5
    """a picture to compare with, e.g. of a generator's training set"""


class Priority(enum.IntEnum):
    """Who goes first when the queue is not empty; waiting raises a request's priority."""

    CONTROL = 0
    """a control loop or an environment that waits"""
    TRAINER = 1
    RELABEL = 2
    """labelling of recorded data"""
