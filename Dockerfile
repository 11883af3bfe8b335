# Rebuilds all results: docker build -t mmaml_tf . && docker run --name mmaml mmaml_tf
# and fetches them: docker cp mmaml:/home/mmaml/mmaml_tf/results .
# Image data: docker run -v /path/to/data:/data:ro -e MMAML_DATA=/data --name mmaml mmaml_tf
# With CUDA libraries: docker build --build-arg DEVICE=gpu -t mmaml_tf:gpu . && docker run --gpus all ...
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make libegl1 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home mmaml
USER mmaml
WORKDIR /home/mmaml/mmaml_tf

ARG DEVICE=cpu
ENV DEVICE=${DEVICE}

# The environment before the code: a change of code does not install everything again.
COPY --chown=mmaml Makefile pyproject.toml requirements.lock requirements-gpu.lock README.md LICENSE ./
COPY --chown=mmaml mmaml_tf/__init__.py mmaml_tf/__init__.py
RUN make environment

COPY --chown=mmaml . .
RUN touch .venv/.installed-${DEVICE}

CMD ["make", "reproduce"]
