"""`make demo`: trains MAML and MMAML on two modes for about a minute each, draws how they fit."""

from pathlib import Path

ITERATIONS = 3000
TASKS = 20
OUTPUT = Path("demo")


def main() -> None:
    """Trains both learners, prints their errors on new tasks and draws their fits."""
    import keras
    import numpy as np

    import mmaml_tf as mm
    from mmaml_tf import evaluation
    from mmaml_tf.training import train
    from pipelines import cells
    from pipelines.progress import Progress

    cells.configure_tensorflow(2)
    tasks = mm.tasks.FunctionTasks(modes=("sinusoid", "linear"), support=5, queries=5, noise=0.3)
    learners = {
        "MAML": mm.MAML(
            mm.networks.MLP(bias_transformation=20),
            inner_loop=mm.InnerLoop(steps=5, learning_rate=1e-3),
            on_nonfinite="skip",
        ),
        "MMAML": mm.MMAML(
            mm.networks.MLP(),
            encoder=mm.encoders.SequenceEncoder(units=40, layers=2),
            modulation="film",
            inner_loop=mm.InnerLoop(steps=5, learning_rate=1e-3, clip=10.0),
        ),
    }
    grid = np.linspace(-5, 5, 101, dtype=np.float32)
    examples = tasks.examples(3, seed=11, grid=grid)
    curves, titles = {}, {}
    for name, learner in learners.items():
        learner.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8), "mse")
        with Progress(name, ITERATIONS) as progress:
            train(
                learner,
                tasks,
                iterations=ITERATIONS,
                batch_size=TASKS,
                seed=0,
                on_log=progress.update,
            )
        report = mm.evaluate(learner, tasks, tasks_per_mode=500)
        print(f"\n{name}, mean squared error on 1000 new tasks (noise alone: 0.09)\n{report}\n")
        curves[name] = evaluation.predictions(learner, examples, 5)[..., 0]
        titles[name] = f"{name}: MSE {report.estimate()}"
    draw(examples, curves, titles)


def draw(examples, curves, titles) -> None:
    """Draws each learner's curve before and after the inner steps for a few new tasks."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = len(examples.mode)
    figure, axes = plt.subplots(
        len(curves), count, figsize=(2.6 * count, 2.8 * len(curves)), squeeze=False, sharex=True
    )
    for row, (name, curve) in zip(axes, curves.items(), strict=True):
        for task, axis in enumerate(row):
            x = examples.query_x[task, :, 0]
            axis.plot(x, examples.query_y[task, :, 0], color="0.6", lw=3, label="true function")
            axis.plot(x, curve[0, task], "--", color="#D55E00", label="before the inner steps")
            axis.plot(x, curve[-1, task], color="#0072B2", label="after 5 inner steps")
            axis.plot(*(a[task, :, 0] for a in examples[:2]), "k.", ms=8, label="support points")
        row[0].set_ylabel("y")
        row[0].set_title(titles[name], loc="left", fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel("x")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncol=4)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    OUTPUT.mkdir(exist_ok=True)
    figure.savefig(OUTPUT / "fits.png", dpi=110)
    print(f"drawn: {OUTPUT / 'fits.png'}")


if __name__ == "__main__":
    main()
