module podshaper.dev/ci/pause

go 1.26.0
