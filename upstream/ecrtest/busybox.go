package ecrtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"
)

// Busybox returns a layer that a container can run, of media type
// application/vnd.oci.image.layer.v1.tar+gzip: the statically linked busybox at path as
// /bin/busybox, links to it, /etc/passwd and /tmp. The digest is the diff ID of the
// layer. The same binary always gives the same layer.
func Busybox(path string) (Content, digest.Digest, error) {
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, "", fmt.Errorf("reading busybox: %w", err)
	}
	var plain bytes.Buffer
	if err := writeRootfs(&plain, binary); err != nil {
		return nil, "", fmt.Errorf("packing busybox: %w", err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(plain.Bytes()); err != nil {
		return nil, "", fmt.Errorf("compressing busybox: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, "", fmt.Errorf("compressing busybox: %w", err)
	}
	return Bytes(packed.Bytes()), digest.FromBytes(plain.Bytes()), nil
}

func writeRootfs(out *bytes.Buffer, busybox []byte) error {
	type file struct {
		tar.Header
		data []byte
	}
	dir := func(name string, mode int64) file {
		return file{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
	}
	regular := func(name string, mode int64, data []byte) file {
		return file{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}, data}
	}
	files := []file{
		dir("bin/", 0o755),
		regular("bin/busybox", 0o755, busybox),
		dir("etc/", 0o755),
		regular("etc/group", 0o644, []byte("root:x:0:\n")),
		regular("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/bin/sh\n")),
		dir("tmp/", 0o1777),
	}
	for _, name := range []string{
		"cat", "date", "echo", "env", "false", "head", "id", "ls", "mkdir", "ps", "pwd", "rm", "sh", "sha256sum",
		"sleep", "true", "uname", "wc",
	} {
		files = append(files, file{Header: tar.Header{
			Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777,
		}})
	}
	w := tar.NewWriter(out)
	for _, f := range files {
		if err := w.WriteHeader(&f.Header); err != nil {
			return err
		}
		if _, err := w.Write(f.data); err != nil {
			return err
		}
	}
	return w.Close()
}
