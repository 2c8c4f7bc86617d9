"""Updates between episodes: a robot must not wait, under way, for its learner."""

from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from .sac import DemoSAC


class EpisodicSAC(DemoSAC):
    """SAC that makes the updates of an episode's decisions when the episode is over.

    As many, in the same order and of the same size as `DemoSAC` makes after every decision.

    Attributes:
        per_decision: critic updates per decision.
    """

    per_decision: int

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Make the updates of `gradient_steps` decisions."""
        for _ in range(gradient_steps):
            super().train(self.per_decision, batch_size)


def between_episodes(model: DemoSAC) -> EpisodicSAC:
    """Let a fresh model collect whole episodes and learn between them; returns the same object."""
    assert type(model) is DemoSAC
    model.__class__ = EpisodicSAC
    assert isinstance(model, EpisodicSAC)
    model.per_decision, model.gradient_steps = model.gradient_steps, -1
    model.train_freq = TrainFreq(1, TrainFrequencyUnit.EPISODE)
    return model
