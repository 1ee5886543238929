# One static binary, certificates, and a data directory; nothing else, no shell.

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=dev
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X github.com/tarport/tarport.Version=$VERSION" -o /out/tarport ./cmd/tarport \
 && mkdir -p /out/data /out/tmp

FROM scratch
LABEL org.opencontainers.image.title="Tarport" \
      org.opencontainers.image.description="A private container registry that takes tarballs" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/tarport /tarport
COPY LICENSE /LICENSE
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 --chmod=1777 /out/tmp /tmp
# Inside the container loopback is nobody else's, so it listens to all.
ENV REGISTRY_HTTP_ADDR=0.0.0.0:5000 \
    REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/data \
    TARPORT_METRICS_ADDR=0.0.0.0:5001
USER 65532:65532
VOLUME /data
EXPOSE 5000 5001
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["/tarport", "healthcheck"]
ENTRYPOINT ["/tarport"]
CMD ["serve"]
