# syntax=docker/dockerfile:1

# The compiler runs on the machine that builds, and compiles for the one that will run the image: nothing is emulated.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS=linux
ARG TARGETARCH
ARG VERSION=devel
# cmd/larder/build_test.go runs this very command; the flags stand nowhere else.
RUN CGO_ENABLED=0 GOOS="$TARGETOS" GOARCH="$TARGETARCH" \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/larder ./cmd/larder
# An empty folder to copy: a new volume takes its owner from the image.
RUN mkdir /out/data

FROM scratch
ARG VERSION=devel
# The commit, of which the build sees none: .git stays outside.
ARG REVISION=""
LABEL org.opencontainers.image.title="larder" \
      org.opencontainers.image.description="A node-local pull-through cache for container images, made for Amazon ECR" \
      org.opencontainers.image.source="https://github.com/larder-registry/larder" \
      org.opencontainers.image.documentation="https://github.com/larder-registry/larder/blob/main/deploy/OPERATIONS.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY LICENSE /LICENSE
# There are no packages but Go's modules, which the binary lists (go version -m): scanners make an SBOM of that.
COPY --from=build /out/larder /larder
COPY --from=build --chown=65532:65532 /out/data /var/lib/larder
# Without a home folder there is no user's cache folder to default to.
ENV LARDER_CACHE_DIR=/var/lib/larder
VOLUME /var/lib/larder
USER 65532:65532
# Registry and admin. Both listen on loopback unless told otherwise: use the host's network, or set LARDER_LISTEN and
# LARDER_ADMIN and mind who can reach them.
EXPOSE 5000 5001
ENTRYPOINT ["/larder"]
CMD ["serve"]
