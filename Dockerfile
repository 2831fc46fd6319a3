# The image of Millrace: every command of millrace.ts, so the cloud service, the edge agent and the simulated plant alike.
# The version of Node is that of the npm package `node` in package.json.

FROM node:26.10.0-trixie-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# Without install scripts: the one that package.json allows would bring a second Node, of 140 MB.
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund

FROM node:26.10.0-trixie-slim
LABEL org.opencontainers.image.title="Millrace" \
      org.opencontainers.image.description="Carries a plant's data from its machines to the database, exactly once" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# What is kept over restarts: an edge's buffer, or the cloud's embedded database. Nothing else is ever written but /tmp.
RUN install --directory --owner=1000 --group=1000 --mode=700 /data
VOLUME /data
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
COPY package.json millrace.ts service.ts demo.ts ./
COPY protocols protocols
COPY config config
COPY edge edge
COPY cloud cloud
COPY simulators simulators
ENV NODE_ENV=production
# The image's user `node`, by number, so that an orchestrator can see that it is not root.
USER 1000:1000
# The cloud's by default; an edge and the simulators are asked elsewhere. "Live", not "ready": a broker or a database that
# is away is no reason to end a process that waits for it.
ENV MILLRACE_HEALTH_URL=http://127.0.0.1:8080/health/live
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
  CMD ["node", "-e", "fetch(process.env.MILLRACE_HEALTH_URL).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["node", "millrace.ts"]
CMD ["--help"]
