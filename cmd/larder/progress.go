package main

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/larder-registry/larder/cmd/larder/format"
)

// progress shows how much is done: as a bar on a terminal, else as a line every few
// seconds.
type progress struct {
	out  io.Writer
	bars *mpb.Progress // nil if out is not a terminal
	bar  *mpb.Bar
	last time.Time // of a line
}

// progressEvery is the time between two lines.
const progressEvery = 5 * time.Second

func newProgress(out io.Writer) *progress {
	p := &progress{out: out, last: time.Now()}
	if !isTerminal(out) {
		return p
	}
	p.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(40))
	p.bar = p.bars.AddBar(0,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.CountersKibiByte("% .1f / % .1f", decor.WC{W: 20})),
		mpb.AppendDecorators(
			decor.AverageSpeed(decor.SizeB1024(0), "% .1f", decor.WC{W: 11}),
			decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 8}),
		))
	return p
}

func (p *progress) at(done, total int64) {
	if p.bars != nil {
		p.bar.SetTotal(max(total, 1), false)
		p.bar.SetCurrent(done)
		return
	}
	if total > 0 && time.Since(p.last) >= progressEvery {
		p.last = time.Now()
		fmt.Fprintf(p.out, "%s of %s (%.0f%%)\n", format.Size(done), format.Size(total), 100*float64(done)/float64(total))
	}
}

// end removes the bar from the terminal.
func (p *progress) end() {
	if p.bars != nil {
		p.bar.Abort(true)
		p.bars.Wait()
	}
}
