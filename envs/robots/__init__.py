"""Real arms, and a simulated one: LeRobot robots behind one door that refuses unsafe commands.

Nothing here imports LeRobot until a robot is built.
"""
