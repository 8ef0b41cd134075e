# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bad input: an error in words that names file and reason, never a crash."""

import json
import os
import shutil
import struct

import support

SMALL = ["steps=1", "num-frames=5", "width=32", "height=32"]
PROMPT = "prompt=a red circle"


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class Settings(support.PipelineTest):
    def refuse(self, properties, *texts):
        self.assert_refused(
            self.launch_refused(["opensorasrc", *properties, "!", "fakesink"]), *texts
        )

    def test_no_prompt(self):
        self.refuse(SMALL, "prompt", "location")

    def test_prompt_and_file(self):
        self.refuse([PROMPT, "location=prompts.txt", *SMALL], "prompt", "location", "only one")

    def test_size_not_a_multiple(self):
        self.refuse(
            [PROMPT, "width=500", "height=32"],
            "width 500 (the nearest are 496 and 512)",
            "multiples of 16",
        )

    def test_size_by_caps_not_a_multiple(self):
        for source in (
            ["opensoratextsrc", PROMPT, "!", "opensoradenoise", "!", "opensoravaedec"],
            ["opensorasrc", PROMPT],
        ):
            self.assert_refused(
                self.launch_refused(
                    [*source, "!", "video/x-raw,width=500,height=20", "!", "fakesink"]
                ),
                "width 500 (the nearest are 496 and 512), height 20 (the nearest are 16 and 32)",
                "multiples of 16",
            )

    def test_rate_by_caps(self):
        self.assert_refused(
            self.launch_refused(
                ["opensorasrc", PROMPT, "!", "video/x-raw,framerate=300/1", "!", "fakesink"]
            ),
            "300/1 frames a second",
            "1 to 240",
        )

    def test_size_by_name_too_large(self):
        self.refuse(
            [PROMPT, "resolution=8192px", "aspect-ratio=2.39:1"],
            "no side can be above 8192",
            "the largest are 8192 x 34",
        )

    def test_condition_without_reference(self):
        self.refuse(
            [PROMPT, *SMALL, "condition=i2v-head"], '"i2v-head" needs a reference', '"image"'
        )

    def test_number_of_frames(self):
        self.refuse([PROMPT, *SMALL, "num-frames=6"], "6")

    def test_unknown_resolution(self):
        self.refuse([PROMPT, "resolution=999z", "aspect-ratio=16:9"], "999z", "256px")

    def test_size_twice(self):
        self.refuse([PROMPT, *SMALL, "resolution=256px"], "width", "resolution")

    def test_missing_device(self):
        self.refuse([PROMPT, *SMALL, "device=cuda:99"], "cuda:99")

    def test_unknown_device(self):
        self.refuse([PROMPT, *SMALL, "device=abacus"], "abacus")

    def test_too_large(self):
        """More tokens than can be counted, and more memory than there is: what is needed, free and
        allowed is told, before anything is denoised."""
        self.refuse([PROMPT, "num-frames=65533", "width=8192", "height=8192"], "8192 x 8192")
        for properties, *texts in (
            (["num-frames=16385", "width=8192", "height=8192"], "takes", "TiB, and", "limit none"),
            (["num-frames=129", "memory-limit=200000000"], "takes", "MiB, and", "limit 190"),
        ):
            result = self.launch_refused(
                ["-m", "opensorasrc", PROMPT, *properties, "!", "fakesink"]
            )
            self.assert_refused(result, "Not enough memory on ", "free", *texts)
            self.assertNotIn("stage=(string)denoise, clip=(uint)0, step", result.out)

    def test_encoder_frames(self):
        self.assert_refused(
            self.launch_refused("videotestsrc ! opensoravaeenc num-frames=6 ! fakesink"), "6"
        )


class Prompts(support.PipelineTest):
    def refuse(self, name, data, *texts):
        if data is not None:
            self.write(name, data)
        self.assert_refused(
            self.launch_refused(["opensorasrc", f"location={name}", *SMALL, "!", "fakesink"]),
            name,
            *texts,
        )

    def test_missing_file(self):
        self.refuse("nowhere.txt", None)

    def test_empty_file(self):
        self.refuse("empty.txt", "# nothing\n\n")

    def test_not_utf8_file(self):
        self.refuse("latin1.txt", b"a red circle\na caf\xe9\n", "UTF-8")

    def test_malformed_row(self):
        self.refuse("rows.csv", 'id,text\n1,"a red circle"\n2,"a green\nsquare\n', "3")

    def test_too_many_fields(self):
        self.refuse("rows.csv", "id,text\n1,a red circle\n2,a green square,more\n", "3")

    def test_no_text_column(self):
        self.refuse("rows.csv", "id,words\n1,a red circle\n", "text")

    def test_not_utf8_stream(self):
        # gst-launch-1.0 does not end at an error that comes before it waits for one.
        result = support.run(
            "(sleep 1; printf 'a caf\\351') | gst-launch-1.0 fdsrc ! text/x-raw,format=utf8 !"
            f" opensoratextenc ! opensoradenoise {' '.join(SMALL)} ! opensoravaedec ! fakesink"
        )
        self.assert_refused(result, "UTF-8")


class References(support.PipelineTest):
    def refuse(self, name, *texts):
        self.assert_refused(
            self.launch_refused(["opensorasrc", PROMPT, f"image={name}", *SMALL, "!", "fakesink"]),
            name,
            *texts,
        )

    def test_missing(self):
        self.refuse("nowhere.png")

    def test_no_picture(self):
        self.write("words.png", "these are words, not pixels\n" * 20)
        self.refuse("words.png")

    def test_cut_off(self):
        self.write("cut.png", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR")
        self.refuse("cut.png")


class Models(support.PipelineTest):
    """A copy of the model with something wrong in it."""

    def setUp(self):
        super().setUp()
        self.model = self.path("model")

    def copy(self):
        shutil.copytree(support.model_dir(), self.model, ignore=shutil.ignore_patterns("train"))

    def weights(self):
        return support.model_config()["mmdit"].get("weights", "mmdit.safetensors")

    def replace(self, name, data):
        path = os.path.join(self.model, name)
        os.remove(path)
        with open(path, "wb") as file:
            file.write(data)

    def refuse(self, *texts):
        command = ["opensorasrc", PROMPT, f"model-location={self.model}", *SMALL, "!", "fakesink"]
        result = self.launch_refused(command)
        self.assert_refused(result, *texts)

    def refuse_weights(self, data, *texts):
        self.copy()
        self.replace(self.weights(), data)
        self.refuse(self.weights(), *texts)

    def read_weights(self):
        with open(os.path.join(support.model_dir(), self.weights()), "rb") as file:
            data = file.read()
        (length,) = struct.unpack("<Q", data[:8])
        return json.loads(data[8 : 8 + length]), data[8 + length :]

    def test_no_folder(self):
        self.refuse(self.model)

    def test_empty_folder(self):
        os.mkdir(self.model)
        self.refuse(self.model, "config.json")

    def test_file_missing(self):
        self.copy()
        os.remove(os.path.join(self.model, self.weights()))
        self.refuse(self.model, self.weights())

    def test_config_not_json(self):
        self.copy()
        self.replace("config.json", b'{"family": "open-sora-v2", ')
        self.refuse("config.json")

    def test_unknown_family(self):
        self.copy()
        self.replace("config.json", b'{"family": "silent-film-v1"}')
        self.refuse("config.json", "silent-film-v1")

    def test_config_out_of_range(self):
        config = support.model_config()
        config["mmdit"]["hidden_size"] = 4000000000
        self.copy()
        self.replace("config.json", json.dumps(config).encode())
        self.refuse("config.json", "hidden_size")

    def test_weights_empty(self):
        self.refuse_weights(b"")

    def test_weights_cut_off(self):
        header, data = self.read_weights()
        self.refuse_weights(safetensors(header, data[: len(data) // 2]))

    def test_header_longer_than_the_file(self):
        self.refuse_weights(struct.pack("<Q", 2**63) + b"{}")

    def test_header_not_json(self):
        self.refuse_weights(safetensors(b'{"a": [[[[', b"\0" * 64))

    def test_unknown_dtype(self):
        header = {"a": {"dtype": "Q7", "shape": [4], "data_offsets": [0, 16]}}
        self.refuse_weights(safetensors(header, b"\0" * 16), "Q7")

    def test_shape_overflow(self):
        header = {"a": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 16]}}
        self.refuse_weights(safetensors(header, b"\0" * 16))

    def test_tensor_missing(self):
        header, data = self.read_weights()
        entry = header.pop("img_in.weight")
        header["something.else"] = entry
        self.refuse_weights(safetensors(header, data), "img_in.weight")

    def test_shape_mismatch(self):
        header, data = self.read_weights()
        rows, columns = header["img_in.weight"]["shape"]
        header["img_in.weight"]["shape"] = [rows // 2, columns * 2]
        self.refuse_weights(
            safetensors(header, data), "img_in.weight", str(rows // 2), str(columns * 2), str(rows)
        )

    def test_decoder_cut_off(self):
        """Every file's header is looked at before the work begins."""
        name = support.model_config()["vae"].get("weights", "vae.safetensors")
        self.copy()
        with open(os.path.join(support.model_dir(), name), "rb") as file:
            data = file.read()
        self.replace(name, data[: len(data) // 2])
        result = self.launch_refused(
            ["-m", "opensorasrc", PROMPT, f"model-location={self.model}", *SMALL, "!", "fakesink"]
        )
        self.assert_refused(result, name)
        self.assertNotIn("stage=(string)", result.out)

    def test_tokenizer_broken(self):
        self.copy()
        folder = support.model_config()["t5"].get("path", "t5")
        self.replace(os.path.join(folder, "spiece.model"), b"\xff" * 100)
        self.refuse("spiece.model")


if __name__ == "__main__":
    support.main()
