"""Songs in, stems out: audio files of any format, read and written block by block."""
