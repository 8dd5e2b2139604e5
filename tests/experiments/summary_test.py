"""What a run prints at its end."""

from experiments import run as run_lib


def test_references_without_a_test_part_are_left_out(capsys):
  """Too few images may be left for one part and not for another."""
  row = {"mean": 0.5, "low": 0.4, "high": 0.6, "count": 2}
  value = {"kendall_tau": {"value": 0.25}}
  run_lib.print_summary(
    "all",
    {
      "seeds": [],
      "summary": {"kendall_tau": row},
      "references": {
        "30 images": {"test": value},
        "900 images": {"val": value},
      },
    },
  )
  (line,) = [x for x in capsys.readouterr().out.splitlines() if "tau" in x]
  assert "30 images 0.25" in line and "900" not in line
