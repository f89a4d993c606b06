# One image for the api, the worker and the coordinator: `api` is the default command.

FROM node:22-bookworm-slim AS build
WORKDIR /app
# Without scripts: the build needs the sources, which come below, so that a change of theirs downloads nothing again.
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY scripts ./scripts
COPY src ./src
RUN npm run build
# The demo model of the default configuration is a development dependency; its weights are kept, the rest is not.
RUN mkdir -p /demo/models \
  && cp node_modules/@vladmandic/human/package.json node_modules/@vladmandic/human/LICENSE /demo/ \
  && cp node_modules/@vladmandic/human/models/centernet.* /demo/models/ \
  && npm prune --omit=dev --ignore-scripts \
  && find node_modules/onnxruntime-node/bin/napi-v6 -mindepth 2 -maxdepth 2 ! -path "*/linux/$(node -p process.arch)" -exec rm -r {} +

FROM node:22-bookworm-slim
# The cache is in the volume, or each new container would fetch its models again.
ENV NODE_ENV=production \
    HOST=0.0.0.0 \
    UV_THREADPOOL_SIZE=64 \
    INFERMILL_DATA_DIR=/data \
    INFERMILL_CACHE_DIR=/data/cache
WORKDIR /app
COPY package.json README.md LICENSE ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /demo ./node_modules/@vladmandic/human
COPY --from=build /app/dist ./dist
COPY config ./config
COPY proto ./proto
COPY templates ./templates
# What runs loaders in Python, where an image that is built on this one brings Python and their packages.
COPY python ./python
RUN mkdir /data && chown node:node /data
USER node
VOLUME /data
EXPOSE 8448
# Not through npm: `npm run` doesn't hand on SIGTERM, and what runs would be lost at every stop.
ENTRYPOINT ["node", "dist/cli/main.js"]
CMD ["api"]
# PORT may be set; a worker doesn't listen, so its service turns this check off.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + (process.env.PORT || 8448) + '/health/live').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
