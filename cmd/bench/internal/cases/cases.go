package cases

import (
	"fmt"
	"net/http"
	"path"
	"slices"

	"github.com/larder-registry/larder/cmd/bench/internal/lab"
	"github.com/larder-registry/larder/cmd/bench/internal/load"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// All returns every case, in the order of the table. fill is the size of the layer that beside-fill fetches, in bytes.
func All(fill int64) []*lab.Case {
	quarter := smaller(large, 4)
	notDirect := map[string]string{"direct": "it is the upstream, and no cache"}
	all := []*lab.Case{
		warmLarge(),
		warmSmall("manifest", "16 connections ask for a warm manifest by digest", func(img *upstream.Image) load.Request {
			return load.Request{Path: img.ManifestPath()}
		}, notDirect),
		warmSmall("blob", "16 connections ask for a warm blob of 4 KiB", func(img *upstream.Image) load.Request {
			return load.Request{Path: img.BlobPath(img.Layer(len(img.Layers) - 1).Digest)}
		}, notDirect),
		warmSmall("head", "16 connections ask for the digest of a warm tag, by HEAD", func(img *upstream.Image) load.Request {
			return load.Request{Method: http.MethodHead, Path: img.TagPath()}
		}, map[string]string{"direct": notDirect["direct"], "bare-go": "it keeps no tags"}),
		cold("cold-1", "1 client pulls a cold image of 446 MB, upstream at full speed", 1, fullSpeed, large),
		cold("cold-8", "8 clients, the same", 8, fullSpeed, large),
		cold("cold-64", "64 clients pull a cold image of 111 MB, upstream at full speed", 64, fullSpeed, quarter),
		cold("cold-1-400", "1 client pulls a cold image of 446 MB, 400 Mb/s a connection, 5 ms", 1, near400, large),
		cold("cold-8-400", "8 clients, the same", 8, near400, large),
		cold("cold-64-400", "64 clients pull a cold image of 111 MB, 400 Mb/s a connection, 5 ms", 64, near400, quarter),
		cold("cold-1-400-far", "1 client pulls a cold image of 446 MB, 400 Mb/s a connection, 50 ms", 1, far400, large),
		cold("cold-1-80", "1 client pulls a cold image of 111 MB, 80 Mb/s a connection, 5 ms", 1, near80, quarter),
		cold("cold-1-80-far", "the same, 50 ms", 1, far80, quarter),
		overTLS(cold("cold-1-tls", "1 client pulls a cold image of 446 MB over TLS, upstream at full speed", 1, fullSpeed, large)),
		overTLS(cold("cold-1-400-tls", "1 client, the same, 400 Mb/s a connection, 5 ms", 1, near400, large)),
		coldFirstByte("first-byte", "12 cold layers of 32 MiB one after the other, until their first byte, upstream at full speed"),
		overTLS(coldFirstByte("first-byte-tls", "the same over TLS")),
		rollout(),
		ranges("ranges", "2,000 random reads of 50 KiB, 8 at a time, of a cold layer of 1 GiB; 400 Mb/s a connection, 5 ms", near400),
		overTLS(ranges("ranges-far-tls", "the same over TLS, 60 ms", ocean400)),
	}
	all = append(all, pieces()...)
	return append(all,
		besideFill(fill),
		besideUpkeep(),
		memoryCold(),
		memoryWarm(),
	)
}

// Select returns the cases whose names match one of the patterns of path.Match, in their order; all if there are no
// patterns. A pattern that matches no case is an error.
func Select(all []*lab.Case, patterns []string) ([]*lab.Case, error) {
	if len(patterns) == 0 {
		return all, nil
	}
	var selected []*lab.Case
	used := make(map[string]bool)
	for _, c := range all {
		for _, pattern := range patterns {
			ok, err := path.Match(pattern, c.Name)
			if err != nil {
				return nil, fmt.Errorf("the case %q: %w", pattern, err)
			}
			if ok && !slices.Contains(selected, c) {
				selected = append(selected, c)
			}
			used[pattern] = used[pattern] || ok
		}
	}
	for _, pattern := range patterns {
		if !used[pattern] {
			return nil, fmt.Errorf("no case is called %q: bench list prints them", pattern)
		}
	}
	return selected, nil
}
