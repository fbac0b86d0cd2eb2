# inf-stream on NVIDIA GPUs of desktops and servers; torch brings CUDA along, the host its driver and container toolkit.
# In the project's root: docker build -f configs/deploy/cuda.Dockerfile -t inf-stream:cuda .
FROM python:3.12-slim

RUN useradd --system --create-home --home-dir /var/lib/inf-stream inf-stream
ENV INF_STREAM_CACHE=/var/lib/inf-stream/models HF_HOME=/var/lib/inf-stream/huggingface \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /srv/inf-stream
# The large ones first: a change of the code does not fetch them again.
COPY configs/constraints.txt configs/
RUN pip install -c configs/constraints.txt torch transformers
COPY pyproject.toml README.md LICENSE ./
COPY edge edge
COPY inf_stream inf_stream
RUN pip install -c configs/constraints.txt .
COPY configs/internvl3-1b.cuda.toml configs/llava-onevision-0.5b.cuda.toml configs/qwen2.5-vl-3b.cuda.toml \
    configs/qwen3-vl-2b.cuda.toml configs/smolvlm2-500m.cuda.toml configs/

USER inf-stream
VOLUME /var/lib/inf-stream
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=5s --start-period=30m \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/health', timeout=4)"]
ENTRYPOINT ["inf-stream", "serve", "--host", "0.0.0.0", "--log-format", "json"]
CMD ["--config", "configs/qwen3-vl-2b.cuda.toml"]
