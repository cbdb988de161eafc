"""Source to files: links, buckets, competitions and archives; verified, unpacked safely, moved into place whole."""
