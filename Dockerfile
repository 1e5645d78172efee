# The page in a container, see nbs/howto/service.ipynb:
#   docker build -t fastai_colorize . && docker run --rm -p 127.0.0.1:7860:7860 --read-only --tmpfs /tmp fastai_colorize
FROM python:3.12-slim
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY . /src
RUN pip install --no-cache-dir '/src[app,heic]'
RUN useradd --create-home visitor
USER visitor
WORKDIR /home/visitor
ENV MPLCONFIGDIR=/tmp
EXPOSE 7860
ENTRYPOINT ["fastai_colorize", "app", "--port", "7860"]
CMD ["--host", "0.0.0.0"]
