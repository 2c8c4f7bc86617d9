import json

import av
import numpy as np
import PIL.Image
import pytest

from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.labelling.export import export, side_by_side
from embodied_reward.labelling.rows import read_answer
from embodied_reward.scoring.heads.choices import TIE
from embodied_reward.scoring.preferences import read_preferences


def answers(session, choices):
    for choice in choices:
        session.answer(session.current.id, choice)
    return [read_answer(row) for row in session._journal.rows]


def lines(folder):
    return [json.loads(line) for line in (folder / "preferences.jsonl").read_text().splitlines()]


def test_pairs_become_videos_of_all_cameras(sitting, episodes, tmp_path):
    judged = answers(sitting(), ["left", "right", "same", "skip"])
    assert export(episodes, judged, tmp_path / "out") == 3
    rows = lines(tmp_path / "out")
    for row, answer in zip(rows, judged, strict=False):
        better, worse = answer.query.left, answer.query.right
        if answer.choice == "right":
            better, worse = worse, better
        assert row["prompt"] == "push"
        assert row["chosen"] == f"clips/episode_{better:06d}.mp4"
        assert row["rejected"] == f"clips/episode_{worse:06d}.mp4"
        assert row.get("tie", False) == (answer.choice == "same")
        with av.open(tmp_path / "out" / row["chosen"]) as video:
            frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
        episode = episodes[better]
        assert len(frames) == len(episode)
        truth = side_by_side(list(episode.views.values()))
        assert frames[0].shape == truth.shape[1:] == (16, 48, 3)
        assert np.abs(np.stack(frames).astype(int) - truth).mean() < 12  # H.264 at 4:2:0


def test_triplets_become_rows_with_a_reference_and_stills_are_exact(sitting, episodes, tmp_path):
    judged = answers(sitting("triplet"), ["right", "same"])
    assert export(episodes, judged, tmp_path / "out", form="png") == 2
    first, second = lines(tmp_path / "out")
    assert "tie" not in first
    assert second["tie"] is True
    query = judged[0].query
    episode = episodes[query.anchor]
    assert len(first["reference"]) == min(8, len(episode))
    for name in first["reference"]:
        t = int(name[-10:-4])
        truth = np.concatenate([view[t] for view in episode.views.values()], axis=1)
        np.testing.assert_array_equal(PIL.Image.open(tmp_path / "out" / name), truth)


def test_nothing_is_half_written(sitting, episodes, tmp_path):
    session = sitting()
    with pytest.raises(DatasetError, match="no answer to export"):
        export(episodes, [], tmp_path / "out")
    judged = answers(session, ["left", "skip"])

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(episodes, judged, tmp_path / "out", on_clip=stop)
    with pytest.raises(ConfigError, match="did you mean 'mp4'"):
        export(episodes, judged, tmp_path / "out", form="mp5")
    missing = set(judged[0].query.episodes)
    with pytest.raises(DatasetError, match=f"name episode {min(missing)}"):
        export(episodes.select([i for i in range(8) if i not in missing]), judged, tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"p.jsonl"}
    export(episodes, judged, tmp_path / "out")
    with pytest.raises(ConfigError, match="exists; give another --export"):
        export(episodes, judged, tmp_path / "out")


def test_views_of_different_heights_fit_together():
    tall, low = np.full((2, 6, 3, 3), 7, np.uint8), np.full((2, 4, 5, 3), 9, np.uint8)
    joined = side_by_side([tall, low])
    assert joined.shape == (2, 6, 8, 3)
    assert (joined[:, :4, 3:] == 9).all()
    assert (joined[:, 4:, 3:] == 0).all()


@pytest.mark.parametrize("form", ["mp4", "png"])
@pytest.mark.parametrize("kind", ["pair", "triplet"])
def test_preference_heads_read_what_is_exported(sitting, episodes, tmp_path, form, kind):
    judged = answers(sitting(kind), ["left", "right", "skip", "same"])
    export(episodes, judged, tmp_path / "out", form=form)
    read = read_preferences(tmp_path / "out" / "preferences.jsonl")
    assert [row.best for row in read.rows] == [(0,), (0,), (TIE,)]
    for row in read.rows:
        assert row.prompt == "push"
        assert (row.reference >= 0) == (kind == "triplet")
    shown = {e for a in judged if not a.skipped for e in a.query.episodes}
    assert len(read.clips) == len(shown)
    for clip in read.clips:
        assert {frame.shape for frame in clip.frames(4)} == {(16, 48, 3)}
