package notify

import (
	"errors"
	"os"
)

func sendFiles(string, []*os.File) error { return errors.New("this system passes no files") }
