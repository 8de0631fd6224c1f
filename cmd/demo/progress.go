package main

import (
	"context"
	"io"
	"strings"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// bars shows the progress of each blob of a pull on a line. It draws on a terminal only, and leaves nothing there.
type bars struct{ progress *mpb.Progress }

// newBars draws on w until end is called.
func newBars(ctx context.Context, w io.Writer) bars {
	return bars{mpb.NewWithContext(ctx, mpb.WithOutput(w), mpb.WithWidth(40))}
}

// watch implements watcher.
func (b bars) watch(digest string, size int64, blob io.ReadCloser) io.ReadCloser {
	_, hex, _ := strings.Cut(digest, ":")
	bar, err := b.progress.Add(size, mpb.BarStyle().Build(),
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(
			decor.Name("     "+hex[:12]),
			decor.CountersKiloByte("% .1f / % .1f", decor.WC{W: 20}),
		),
		mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1000(0), "% .1f", decor.WC{W: 11})))
	if err != nil {
		return blob // the pull has ended
	}
	return barred{bar.ProxyReader(blob), bar}
}

// barred is a blob with its bar. Closing the blob removes the bar, also before the blob's end.
type barred struct {
	io.ReadCloser
	bar *mpb.Bar
}

func (b barred) Close() error {
	b.bar.Abort(true)
	return b.ReadCloser.Close()
}

// end removes everything from the terminal. It is called when all blobs are closed.
func (b bars) end() { b.progress.Wait() }
