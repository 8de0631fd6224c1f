package daemon

import (
	"encoding/hex"
	"testing"

	spanpb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// attributesOf returns the texts among the attributes of a span.
func attributesOf(span *spanpb.Span) map[string]string {
	texts := make(map[string]string)
	for _, a := range span.GetAttributes() {
		texts[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return texts
}

// The path of a layer's bytes is one trace: a client of one node, the fill there, the question to another node, its fill,
// and the upstream's storage.
func TestPathOfABlobAcrossNodesIsOneTrace(t *testing.T) {
	c := newCollector(t)
	z := newZone(t)
	for range 3 {
		z.start(t, peerPatience, "telemetry: {otlp_endpoint: '"+c.URL+"', sample_ratio: 0}\n")
	}
	z.awaitNodes(t, 3)
	image, _ := z.addLayers(t, "team/app", 100_000, 100_001, 100_002, 100_003, 100_004, 100_005, 100_006, 100_007)
	asking := z.nodes[0]
	asking.pull(t, "team/app", image, "Traceparent", "00-"+coldTrace+"-b7ad6b7169203331-01")
	self := asking.daemon.sharing.Status()
	for i, stop := range z.stops { // spans are exported at the end
		stop()
		z.stops[i] = func() {}
	}
	spans, names := c.trace(coldTrace)
	addresses := make(map[string]bool)
	for _, n := range self.Nodes {
		addresses[n.Address] = !n.Self
	}
	asked, blobs := 0, 0
	for _, span := range spans {
		if span.GetName() != "GET peer" {
			continue
		}
		asked++
		said := attributesOf(span)
		if !addresses[said["server.address"]] || said["larder.peer.zone"] != "a" || said["larder.peer.answer"] != answerOf(spans, span) {
			t.Errorf("a question to a node has the attributes %v, and the other nodes are %v", said, addresses)
		}
		if parent := spans[string(span.GetParentSpanId())].GetName(); parent == "fill" {
			blobs++
		}
		if below := below(spans, span); below == nil {
			t.Errorf("the answer of the other node is not in the trace: %v", names)
		}
	}
	if asked == 0 || blobs == 0 {
		t.Fatalf("%d questions to nodes, %d of them for blobs, are in the trace %v", asked, blobs, names)
	}
	for _, span := range spans {
		if span.GetName() != "GET storage" {
			continue
		}
		for ; span != nil; span = spans[string(span.GetParentSpanId())] {
			if hex.EncodeToString(span.GetParentSpanId()) == "b7ad6b7169203331" {
				break
			}
		}
		if span == nil {
			t.Errorf("a question to storage does not come from the client: %v", names)
		}
	}
}

// below returns the span of the other end of a question.
func below(spans map[string]*spanpb.Span, question *spanpb.Span) *spanpb.Span {
	for _, span := range spans {
		if string(span.GetParentSpanId()) == string(question.GetSpanId()) {
			return span
		}
	}
	return nil
}

// answerOf returns what a node answers that has just been asked for something that nobody has.
func answerOf(spans map[string]*spanpb.Span, question *spanpb.Span) string {
	if answer := below(spans, question); answer != nil && attributesOf(answer)["larder.cache"] == "HIT" {
		return "has"
	}
	return "getting"
}
