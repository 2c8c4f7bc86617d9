"""Fine-tuning on two machines of one network: an actor at the robot, a learner elsewhere."""
