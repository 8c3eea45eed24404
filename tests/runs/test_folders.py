"""Folders that hold several trainings are as good as each of them."""

from mmdet_backbones.runs.folders import SEARCH, TRIALS, work_folders


def test_a_search_stands_for_its_trials(tmp_path):
    plain, found = tmp_path / 'plain', tmp_path / 'found'
    trials = [found / TRIALS / name for name in ('b', 'a')]
    for folder in (plain, *trials):
        folder.mkdir(parents=True)
    (found / TRIALS / 'note.txt').write_text('')
    # Without its file it is a folder like any other.
    assert work_folders([plain, found]) == [plain, found]
    (found / SEARCH).write_text('{}')
    assert work_folders([plain, found]) == [plain, *sorted(trials)]
