package storage

import (
	"encoding/xml"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
)

// s3Error is an error in the form of S3.
type s3Error struct {
	status     int
	XMLName    xml.Name `xml:"Error"`
	Code       string
	Message    string
	AmzExpires int64  `xml:"X-Amz-Expires,omitempty"` // seconds
	Expires    string `xml:",omitempty"`
	ServerTime string `xml:",omitempty"`
}

// reply sends the error.
func (e s3Error) reply(x *frontend.Exchange) {
	body, err := xml.Marshal(e)
	if err != nil {
		panic("ecrtest: encoding an error: " + err.Error())
	}
	x.Reply(e.status, "application/xml", append([]byte(xml.Header), body...))
}

// fail sends an error in the form of S3.
func fail(x *frontend.Exchange, e frontend.Error) {
	s3Error{status: e.Status, Code: e.Code, Message: e.Message}.reply(x)
}
