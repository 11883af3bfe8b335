"""Exports a trained model as .keras file and as SavedModel for inference."""

import shutil

from pipelines import cells
from pipelines import params as parameters


def main() -> None:
    """Exports the cell that the command line names."""
    arguments = parameters.cell_arguments(__doc__)
    params = parameters.load()
    parameters.check_cell(params, arguments)

    cell = cells.of(params, arguments)
    shutil.rmtree(cell.exported, ignore_errors=True)
    cell.exported.mkdir(parents=True)
    if cell.left_out:
        (cell.exported / "left_out.txt").write_text("None of its modes has data.\n")
        return
    cells.configure_tensorflow(params["threads"])
    learner = cell.trained_learner()
    learner.save(cell.exported / "model.keras")
    learner.export(cell.exported / "saved_model")
    print(f"{cell.exported}: model.keras and saved_model")


if __name__ == "__main__":
    main()
