package sts

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
)

// namespace is that of STS's documents.
const namespace = "https://sts.amazonaws.com/doc/2011-06-15/"

// callerIdentity is the result of GetCallerIdentity.
type callerIdentity struct {
	ARN     string `xml:"Arn"`
	UserID  string `xml:"UserId"`
	Account string
}

// assumedRole is the result of AssumeRole and AssumeRoleWithWebIdentity.
type assumedRole struct {
	Credentials struct {
		AccessKeyID     string `xml:"AccessKeyId"`
		SecretAccessKey string
		SessionToken    string
		Expiration      string
	}
	AssumedRoleUser struct {
		AssumedRoleID string `xml:"AssumedRoleId"`
		ARN           string `xml:"Arn"`
	}
}

// reply sends the result of an operation.
func reply(x *frontend.Exchange, operation string, result any) {
	var body bytes.Buffer
	fmt.Fprintf(&body, `<%sResponse xmlns="%s">`, operation, namespace)
	if err := xml.NewEncoder(&body).EncodeElement(result, xml.StartElement{Name: xml.Name{Local: operation + "Result"}}); err != nil {
		panic("ecrtest: encoding an answer: " + err.Error())
	}
	fmt.Fprintf(&body, `<ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></%sResponse>`, uuid.NewString(), operation)
	x.Reply(http.StatusOK, "text/xml", body.Bytes())
}

// fail sends an error in the form of the query protocol.
func fail(x *frontend.Exchange, e frontend.Error) {
	type detail struct {
		Type    string
		Code    string
		Message string
	}
	kind := "Sender"
	if e.Status >= http.StatusInternalServerError {
		kind = "Receiver"
	}
	body, err := xml.Marshal(struct {
		XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
		Error     detail
		RequestID string `xml:"RequestId"`
	}{Error: detail{kind, e.Code, e.Message}, RequestID: uuid.NewString()})
	if err != nil {
		panic("ecrtest: encoding an error: " + err.Error())
	}
	x.Reply(e.Status, "text/xml", body)
}
