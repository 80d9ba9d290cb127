//go:build !unix

package doctor

import "io/fs"

// judgeFile: there are no mode bits to look at.
func judgeFile(file string, fi fs.FileInfo, name string) []Finding {
	return []Finding{{Link: "binary", Level: OK, What: file + " is there"}}
}
