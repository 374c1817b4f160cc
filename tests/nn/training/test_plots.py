"""bnncc.nn.training.plots: figures where there is matplotlib, and none where there is not."""

import sys

import pytest

torch = pytest.importorskip("torch")

from bnncc.nn.training import EpochFigures, History, plot_bars, plot_histories  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"


def history(flips):
    return History(
        tuple(
            EpochFigures(epoch, 1 / epoch, 1 - 0.1 / epoch, 0.1, flips(epoch), 1.0)
            for epoch in (1, 2, 3)
        )
    )


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figures that were saved."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    saved, save = [], figure.savefig

    def keep(self, path):
        saved.append(self)
        save(self, path)

    monkeypatch.setattr(figure, "savefig", keep)
    return saved


def test_curves_show_what_the_epochs_came_to(drawn, tmp_path):
    histories = {
        "twin": history(lambda _: {}),
        "net": history(lambda epoch: {"fc1": 0.1 / epoch, "fc2": 0.0}),
    }

    assert plot_histories(histories, tmp_path / "curves.png")

    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
    loss, error, flips = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in error.get_lines()}
    assert lines.keys() == {"twin", "net"}
    assert [epoch for epoch, _ in lines["net"]] == [1, 2, 3]
    assert [value for _, value in lines["net"]] == pytest.approx([10, 5, 10 / 3])
    assert loss.get_lines()[0].get_ydata().tolist() == [1, 1 / 2, 1 / 3]
    assert [line.get_label() for line in flips.get_lines()] == ["net: fc1", "net: fc2"]


def test_bars_are_in_order(drawn, tmp_path):
    assert plot_bars({"all": 1.0, "none": 2.5}, "error, %", tmp_path / "bars.png")

    assert (tmp_path / "bars.png").read_bytes().startswith(PNG)
    (axes,) = drawn[0].axes
    assert [bar.get_width() for bar in axes.patches] == [1.0, 2.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["all", "none"]
    assert axes.get_xlabel() == "error, %"


def test_without_matplotlib_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    assert not plot_histories({"net": history(lambda _: {})}, tmp_path / "curves.png")
    assert not plot_bars({"net": 1.0}, "error, %", tmp_path / "bars.png")
    assert list(tmp_path.iterdir()) == []
