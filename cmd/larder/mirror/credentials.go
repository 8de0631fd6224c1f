package mirror

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
)

// maxCredentials bounds the file of a user name and a password, in bytes.
const maxCredentials = 4 << 10

var errCredentials = errors.New("expected one line <user>:<password>")

// ReadCredentials returns the Authorization header for the user name and the password in a file,
// which has one line <user>:<password>. Its errors show nothing of the file.
func ReadCredentials(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the user name and password for Larder: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCredentials+1))
	if err != nil {
		return "", fmt.Errorf("read the user name and password for Larder: %w", err)
	}
	line := strings.TrimRight(string(text), "\r\n")
	user, _, ok := strings.Cut(line, ":")
	if !ok || user == "" || len(text) > maxCredentials || strings.ContainsFunc(line, unicode.IsControl) {
		return "", fmt.Errorf("read the user name and password for Larder: %s: %w", path, errCredentials)
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(line)), nil
}
