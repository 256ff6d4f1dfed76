"""What ``until=decided`` would have run of a recorded study."""

from harness import records
from scripts import replay_seeds
from tests import synthetic


def replayed(monkeypatch, losses, **more):
    study = synthetic.study(losses=losses, models=("cnn_micro",), track="fixed", mishaps=False, history=False, **more)
    monkeypatch.setattr(records, "load_study", lambda name: study)
    return replay_seeds.replay("made_up")


def test_a_great_difference_takes_few_seeds_and_a_hopeless_one_is_given_up(monkeypatch):
    found = replayed(monkeypatch, ("cross_entropy", "mae_prob", "focal"), seeds=range(1, 21))
    assert found.verdicts["worse"] == 1
    assert found.recorded == 60
    assert found.made < 45
    assert found.made >= 3 * replay_seeds.FIRST


def test_a_small_margin_among_much_noise_is_given_up_at_once(monkeypatch):
    found = replayed(monkeypatch, ("cross_entropy", "bce_ovr"), seeds=range(1, 13), noise=0.05)
    assert found.verdicts == {"not decidable": 1}
    assert found.made < found.recorded


def test_it_prints_a_line_for_each_study_and_one_for_all(monkeypatch, capsys):
    study = synthetic.study(losses=("cross_entropy", "mae_prob"), track="fixed", mishaps=False, history=False)
    monkeypatch.setattr(records, "load_study", lambda name: study)
    replay_seeds.main(["one", "two"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["one", "two", "all"]
    assert lines[-1].endswith("%")
