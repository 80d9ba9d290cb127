package notify

import (
	"errors"
	"os"
)

func rightsOf([]*os.File) ([]byte, error) { return nil, errors.New("this system passes no files") }
