# mmdet-backbones on a machine with NVIDIA GPUs:
#   docker build -t mmdet-backbones .
#   docker run --rm --gpus all --shm-size 8g --user "$(id -u):$(id -g)" \
#       -v "$PWD":/work mmdet-backbones train mine.py
# The slim image of Python is enough: torch's wheels bring CUDA 13, cuDNN and NCCL, the host
# its driver (580 or newer). Nothing is compiled, so no image with nvcc is needed.
# --shm-size: the loaders hand their images over in shared memory, of which Docker gives 64 MB.
FROM python:3.11-slim-bookworm

# What OpenCV links against; Debian's stable keeps their versions.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# First what seldom changes: the layer with torch outlasts changes of the code.
WORKDIR /opt/mmdet_backbones
COPY requirements.txt ./
COPY requirements/constraints.txt requirements/
RUN pip install --no-cache-dir -r requirements.txt -c requirements/constraints.txt
COPY . .
RUN pip install --no-cache-dir ".[mmdet,data,eval]" -c requirements/constraints.txt

# Not root: what a training writes into the mounted folder shall be its user's. --user may
# give any number, so the home is writable for all of them, and USER names the user that
# the list of users does not know (torch asks).
RUN useradd --create-home --uid 1000 trainer && chmod 1777 /home/trainer
ENV HOME=/home/trainer \
    USER=trainer \
    PYTHONUNBUFFERED=1
USER trainer

# Paths on the command line and in configs are those of the mounted folder.
WORKDIR /work
ENTRYPOINT ["mmdet-backbones"]
CMD ["--help"]
