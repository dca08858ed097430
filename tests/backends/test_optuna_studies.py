"""Studies are shared, survive kill -9, and draw the same parameters whoever asks and however often others died."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_assets.backends.optuna_journal import JournalFile
from ml_assets.backends.optuna_studies import OptunaStudies
from ml_assets.core.errors import BadInput
from ml_assets.core.search_spaces import Choice, FloatRange, IntRange, SearchSpace
from ml_assets.core.studies import SamplerName, SearchSettings, Study, Trial
from ml_assets.core.tuning import Budget, search

SPACE: SearchSpace = {
    "rate": FloatRange(low=1e-4, high=1.0, is_log=True),
    "n_layers": IntRange(low=1, high=8),
    "kind": Choice(options=("a", "b", "c")),
}
FIRST = {"rate": 0.01, "n_layers": 2, "kind": "b"}

# A worker says what it does line by line, and holds its breath in the trials named until it is told to go on.
WORKER = """
import json, sys
from ml_assets.backends.optuna_studies import OptunaStudies
from ml_assets.core.search_spaces import Choice, FloatRange, IntRange
from ml_assets.core.studies import SearchSettings
from ml_assets.core.tuning import Budget, search
url, n_trials, holds_at = sys.argv[1], int(sys.argv[2]), sys.argv[3]
space = {"rate": FloatRange(low=1e-4, high=1.0, is_log=True), "n_layers": IntRange(low=1, high=8),
         "kind": Choice(options=("a", "b", "c"))}
study = OptunaStudies(url).open("shared", space=space, first={"rate": 0.01, "n_layers": 2, "kind": "b"},
                                settings=SearchSettings(seed=5))
n_begun = 0
def run_trial(study, trial):
    global n_begun
    n_begun += 1
    print(json.dumps([trial.number, dict(trial.parameters)]), flush=True)
    if holds_at == f"number {trial.number}" or holds_at == f"own {n_begun}":
        sys.stdin.readline()
    study.complete(trial, float(trial.number))
search(study, run_trial, budget=Budget(n_trials=n_trials, seconds=1e9), seconds_now=lambda: 0.0,
       on_trial=lambda trial, n_taken: None)
"""


def worker(url: str, n_trials: int, holds_at: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, url, str(n_trials), holds_at],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(params=["memory", "file", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = tmp_path / "a folder"
    folder.mkdir()
    urls = {"memory": "memory://", "file": folder.as_uri(), "sqlite": f"sqlite:///{folder}/studies.db"}
    return urls[request.param]


@pytest.fixture
def file_url(tmp_path: Path) -> Iterator[str]:
    return tmp_path.as_uri()


def opened(url: str, **settings: object) -> Study:
    return OptunaStudies(url).open("shared", space=SPACE, first=FIRST, settings=SearchSettings(**settings))  # pyright: ignore


def search_all(study: Study, n_trials: int) -> list[Trial]:
    """Make trials whose loss is their rate, and return the ones that were made."""
    made = list[Trial]()

    def run_trial(study: Study, trial: Trial) -> None:
        made.append(trial)
        study.complete(trial, float(trial.parameters["rate"]))

    budget = Budget(n_trials=n_trials, seconds=1.0)
    search(study, run_trial, budget=budget, seconds_now=lambda: 0.0, on_trial=lambda trial, n_taken: None)
    return made


def test_what_is_told_is_what_is_remembered(url: str):
    study = opened(url)
    first, second, third, fourth = (study.ask() for _ in range(4))
    assert first == Trial(number=0, parameters=FIRST)
    assert not study.report(first, epoch=1, loss=0.9)
    study.complete(first, 0.5)
    study.report(second, epoch=1, loss=0.8)
    study.report(second, epoch=2, loss=0.7)
    study.prune(second)
    study.fail(third, "InvalidDeclaration: too deep")
    study.abandon(fourth, is_offered_again=True)
    found = study.trials()
    assert [(t.state, t.loss, t.n_epochs, t.reason) for t in found] == [
        ("complete", 0.5, 1, ""),
        ("pruned", 0.7, 2, ""),
        ("failed", None, 0, "InvalidDeclaration: too deep"),
        ("abandoned", None, 0, ""),
        ("waiting", None, 0, ""),
    ]
    assert all(SPACE[name].contains(value) for t in found for name, value in t.parameters.items())
    again = study.ask()
    assert (again.number, again.parameters) == (4, fourth.parameters)


@pytest.mark.parametrize("where", ["file", "sqlite"])
def test_a_study_is_found_again_by_its_name(where: str, tmp_path: Path):
    url = tmp_path.as_uri() if where == "file" else f"sqlite:///{tmp_path}/studies.db"
    made = search_all(opened(url), 3)
    assert [(t.number, t.parameters) for t in opened(url).trials()] == [(t.number, t.parameters) for t in made]
    assert search_all(opened(url), 3) == []
    assert [t.number for t in search_all(opened(url), 5)] == [3, 4]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_that_was_broken_off_draws_what_an_undisturbed_one_draws(sampler: SamplerName, tmp_path: Path):
    whole = search_all(opened((tmp_path / "whole").as_uri(), sampler=sampler, seed=3), 14)
    parts = (tmp_path / "parts").as_uri()
    in_parts = [t for n in (4, 12, 14) for t in search_all(opened(parts, sampler=sampler, seed=3), n)]
    assert in_parts == whole
    other_seed = search_all(opened((tmp_path / "other").as_uri(), sampler=sampler, seed=4), 14)
    assert other_seed[0] == whole[0]
    assert all(mine.parameters != theirs.parameters for mine, theirs in zip(other_seed[1:], whole[1:], strict=True))
    assert len({json.dumps(t.parameters) for t in whole}) == 14


def test_the_gp_sampler_draws_the_same_from_the_same_seed(tmp_path: Path):
    one, other = (search_all(opened((tmp_path / name).as_uri(), sampler="gp", seed=3), 12) for name in ("a", "b"))
    assert one == other
    assert len({json.dumps(t.parameters) for t in one}) == 12


def test_tpe_learns_where_random_does_not(tmp_path: Path):
    def mean_late_rate(sampler: SamplerName) -> float:
        made = search_all(opened((tmp_path / sampler).as_uri(), sampler=sampler, seed=1), 40)
        return sum(float(t.parameters["rate"]) for t in made[20:]) / 20

    assert mean_late_rate("tpe") < 0.2 * mean_late_rate("random")


def test_two_processes_share_one_study_and_make_each_trial_once(file_url: str):
    workers = [worker(file_url, 20, "own 1") for _ in range(2)]
    began = [json.loads(one.stdout.readline()) for one in workers]  # both are in a trial of their own now
    outputs = [one.communicate("go on\n", timeout=100)[0] for one in workers]
    assert [one.returncode for one in workers] == [0, 0]
    made = began + [json.loads(line) for output in outputs for line in output.splitlines()]
    assert len(made) == 20
    complete = {t.number: t for t in opened(file_url).trials() if t.state == "complete"}
    assert sorted(number for number, _ in made) == sorted(complete)
    assert dict(made) == {n: t.parameters for n, t in complete.items()}
    assert {t.state for t in opened(file_url).trials()} <= {"complete", "abandoned"}
    assert len({json.dumps(parameters) for _, parameters in made}) == 20


def test_of_two_who_take_the_last_trial_at_once_one_gives_way(file_url: str):
    mine, theirs = opened(file_url), opened(file_url)
    n_before = len(search_all(mine, 3))
    taken = theirs.ask()
    ask = mine.ask

    def ask_too_late() -> Trial:
        assert mine.trials()[taken.number].state == "running"
        return ask()

    # As if the count had been read before the other asked.
    counted = iter([mine.trials()[:3], mine.trials()])
    mine.ask = ask_too_late  # pyright: ignore
    trials = mine.trials
    mine.trials = lambda: next(counted, None) or trials()  # pyright: ignore
    assert search_all(mine, 4) == []
    assert n_before == 3
    theirs.complete(taken, 1.0)
    assert [t.state for t in theirs.trials()] == ["complete"] * 4 + ["abandoned"]


def test_after_kill_9_in_a_trial_the_next_run_ends_the_study_with_the_right_number_of_trials(
    file_url: str, tmp_path: Path
):
    doomed = worker(file_url, 6, "number 2")
    begun = [json.loads(doomed.stdout.readline()) for _ in range(3)]
    doomed.send_signal(signal.SIGKILL)
    doomed.communicate(timeout=100)
    # What a process leaves that is killed, or out of disk, in the middle of a write.
    with (tmp_path / "shared.journal").open("ab") as journal:
        journal.write(b'{"op_code":5,"worker_id":"73ad3e')
    kept = opened(file_url, seed=5).trials()[:2]

    made = search_all(opened(file_url, seed=5), 6)

    assert made[0].parameters == begun[2][1]
    assert len(made) == 4
    found = opened(file_url).trials()
    assert found[:2] == kept
    assert found[2].state == "abandoned"
    assert sum(t.state == "complete" for t in found) == 6
    assert len(found) == 7


def test_defaults_whose_process_dies_are_tried_again_before_all_others(file_url: str):
    doomed = worker(file_url, 6, "number 0")
    doomed.stdout.readline()
    doomed.kill()
    doomed.communicate(timeout=100)
    assert [t.parameters for t in search_all(opened(file_url), 1)] == [FIRST]


def test_parameters_that_take_their_process_down_are_not_tried_for_ever(file_url: str):
    for number in (0, 1, 2):
        doomed = worker(file_url, 2, f"number {number}")
        assert json.loads(doomed.stdout.readline()) == [number, FIRST]
        doomed.kill()
        doomed.communicate(timeout=100)
    [made] = search_all(opened(file_url), 1)
    assert made.parameters != FIRST


def test_a_running_trial_of_a_living_process_is_left_alone(file_url: str):
    busy = worker(file_url, 3, "number 0")
    busy.stdout.readline()
    assert opened(file_url).release_dead() == 0
    assert busy.communicate("go on\n", timeout=100)[0].count("\n") == 2
    assert [t.state for t in opened(file_url).trials()] == ["complete"] * 3


def test_a_trial_far_worse_than_the_others_is_pruned_at_its_third_epoch_and_only_if_asked_for(tmp_path: Path):
    def told_to_stop(name: str, *, is_pruning: bool) -> list[bool]:
        study = opened((tmp_path / name).as_uri(), is_pruning=is_pruning)
        for _ in range(5):
            trial = study.ask()
            assert not any([study.report(trial, epoch=epoch, loss=0.5) for epoch in (1, 2, 3)])  # noqa: C419 # all epochs
            study.complete(trial, 0.5)
        trial = study.ask()
        return [study.report(trial, epoch=epoch, loss=0.9) for epoch in (1, 2, 3)]

    assert told_to_stop("on", is_pruning=True) == [False, False, True]
    assert told_to_stop("off", is_pruning=False) == [False, False, False]


def test_the_parameter_that_decides_the_loss_has_nearly_all_of_the_importance(file_url: str):
    study = opened(file_url, sampler="random")
    assert study.importances(0) == {}
    for _ in range(40):
        trial = study.ask()
        study.complete(trial, float(trial.parameters["n_layers"]))
    shares = study.importances(0)
    assert next(iter(shares)) == "n_layers"
    assert shares["n_layers"] > 0.9
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_journal_reads_as_one_of_optuna(file_url: str, tmp_path: Path):
    import optuna
    from optuna.storages.journal import JournalFileBackend

    made = search_all(opened(file_url), 4)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "shared.journal")))
    study = optuna.load_study(study_name="shared", storage=storage)
    assert [t.params for t in study.trials] == [t.parameters for t in made]
    assert study.best_value == min(float(t.parameters["rate"]) for t in made)


def test_half_a_line_is_neither_read_nor_built_upon(tmp_path: Path):
    path = tmp_path / "a.journal"
    journal = JournalFile(path)
    journal.append_logs([{"op_code": 0, "n": 0}])
    long = b'{"op_code":1,"text":"' + b"x" * 200_000
    with path.open("ab") as file:
        file.write(long)
    assert [log["n"] for log in journal.read_logs(0)] == [0]
    JournalFile(path).append_logs([{"op_code": 0, "n": 1}])
    assert [log["n"] for log in journal.read_logs(1)] == [1]
    path.write_bytes(long)
    JournalFile(path).append_logs([{"op_code": 0, "n": 2}])
    assert [log["n"] for log in JournalFile(path).read_logs(0)] == [2]


def test_an_address_holds_no_password():
    secret = "postgresql://tuner:hunter2@127.0.0.1:1/studies"
    with pytest.raises(BadInput, match="cannot be reached; check ML_ASSETS_STUDIES") as refused:
        opened(secret)
    assert "127.0.0.1:1/studies" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_storage_of_another_kind_is_refused():
    with pytest.raises(BadInput, match="cannot be kept in a redis storage; expected a URL that begins with"):
        OptunaStudies("redis://here")
