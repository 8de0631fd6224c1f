package main

import "context"

// memoryCold is many clients of a large image that nobody holds.
func memoryCold() *scenario {
	sc := cold("memory-cold", "64 clients pull a cold image of 1 GiB at once, upstream at full speed", 64, fullSpeed,
		[]int64{512 * mib, 256 * mib, 128 * mib, 64 * mib, 32 * mib, 32 * mib})
	sc.rounds = 1
	sc.headline = []metric{wall, cpuPerGB, peakMemory}
	sc.skip["distribution"] = "it would fetch the image 64 times"
	sc.skip["direct"] = "it has no memory of its own"
	return sc
}

// memoryWarm is very many clients of an image that everyone holds.
func memoryWarm() *scenario {
	const clients = 256
	return &scenario{
		name:     "memory-warm",
		about:    "256 clients pull a warm image of 28 MB at once",
		rounds:   1,
		headline: []metric{wall, cpuPerGB, peakMemory},
		skip:     map[string]string{"direct": "it has no memory of its own"},
		prepare: func(ctx context.Context, l *lab, servers []*server) (turn, error) {
			img, err := l.image(ctx, parts(large, 16)...)
			if err != nil {
				return nil, err
			}
			if err := l.warm(ctx, servers, img); err != nil {
				return nil, err
			}
			return func(ctx context.Context, s *server, _ int) (*outcome, error) {
				served, took, err := pullAll(ctx, s, img, clients, 1, false)
				return &outcome{served: served, measures: measures{wall: took.Seconds()}}, err
			}, nil
		},
	}
}
