"""What MLflow stored as the model of a store's only run."""

import mlflow


def load(uri, experiment):
    """Returns the loaded model, and (type, shape) by name of what it takes and gives."""
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    (output,) = run.outputs.model_outputs
    logged = mlflow.pyfunc.load_model(client.get_logged_model(output.model_id).artifact_location)
    signature = logged.metadata.signature
    specs = [(spec.name, spec) for spec in signature.inputs]
    specs += [("output", spec) for spec in signature.outputs]
    return logged, {name: (spec.type.name, spec.shape) for name, spec in specs}
