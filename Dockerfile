# docker build -t sidequest .                                                     with torch for CPUs
# docker build -t sidequest --build-arg TORCH_INDEX=https://pypi.org/simple .     with torch for CUDA
# docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" sidequest train env=toy
FROM python:3.12-slim AS build
WORKDIR /src
RUN pip install --no-cache-dir hatchling
COPY . .
RUN python -m hatchling build -t wheel -d /dist

FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# What MuJoCo renders with, without a display.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libegl-mesa0 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*
# Before the wheel: a change of the code does not bring torch again.
COPY pyproject.toml /tmp/
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" \
    "$(sed -n 's/.*"\(torch[^"]*\)".*/\1/p' /tmp/pyproject.toml)"
COPY --from=build /dist /tmp/dist
RUN pip install --no-cache-dir "$(echo /tmp/dist/*.whl)[dmc]"
# Whoever runs it: the home of --user is not there.
ENV MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --create-home sidequest && install -d -o sidequest /work
USER sidequest
WORKDIR /work
ENTRYPOINT ["sidequest"]
CMD ["--help"]
