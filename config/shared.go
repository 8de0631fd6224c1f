package config

// Shared says which store this node shares what it fetches with others through.
type Shared struct {
	S3 S3
	// KeyFile is the absolute path of the file with the keys that seal what the store says of repositories and tags; ""
	// means that it says nothing of them.
	KeyFile string
}

// S3 is a bucket.
type S3 struct {
	// Bucket is its name; "" means none.
	Bucket string
	// Prefix is the folder of Larder's objects in it, without slashes around it; "" means the top.
	Prefix string
	// Region is the bucket's. Default us-east-1 if Endpoint is set, and required if not.
	Region string
	// Endpoint is the URL of another S3 than AWS's.
	Endpoint string
	// PathStyle puts the bucket's name into the path of requests rather than before the host.
	PathStyle bool
	// Write puts what this node fetches into the bucket.
	Write bool
	// Rate bounds how many bytes a second are put there; 0 means any number. Default 50MB.
	Rate int64
}

// On reports whether there is a bucket.
func (s S3) On() bool { return s.Bucket != "" }
