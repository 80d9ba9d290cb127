//go:build !linux

package builder

import "io/fs"

// wasRead is not asked: nothing is shared without Landlock.
func wasRead(fs.FileInfo) bool { return false }
