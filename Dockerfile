# Everything in one image, for CPUs:
#   docker build -t fmnist_pl .
# For NVIDIA's GPUs, by the index that PyTorch comes from (docker run then wants --gpus=all):
#   docker build -t fmnist_pl --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
# Commands are as everywhere. What they leave, and the data set, goes into the folder that is mounted:
#   docker run --rm --init --user "$(id -u):$(id -g)" -v "$PWD:/work" fmnist_pl \
#     python -m fmnist_pl.train model=cnn_bn
# There is no compiler in it, so no compile=true; runs of any user, also with --read-only.
FROM python:3.13-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# By far the largest layer, and first: it is built again only when the lock changes. Its index has
# PyTorch alone, the rest is PyPI's.
COPY requirements.lock /tmp/
RUN grep -E '^(torch|torchvision)==' /tmp/requirements.lock > /tmp/torch.txt \
    && pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" -r /tmp/torch.txt

COPY . /tmp/fmnist_pl
RUN pip install --no-cache-dir -c /tmp/requirements.lock "/tmp/fmnist_pl[export]" \
    && useradd --no-create-home --home-dir /work fmnist \
    && install --directory --mode 777 /work

# A user without a name has these: caches and temporary files go where all else goes.
ENV HOME=/work USER=fmnist
USER fmnist
WORKDIR /work
CMD ["python", "-m", "fmnist_pl.train", "--help"]
