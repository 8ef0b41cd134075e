# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several clips from one pipeline: prompt files, samples, prompts from a stream."""

import support

SMALL = ["steps=1", "num-frames=5", "width=32", "height=32"]
PROMPTS = ["a red circle", "a green square", "a blue star"]
FRAME = 32 * 32 * 3
CLIP = 5 * FRAME


class Prompts(support.PipelineTest):
    def frames(self, *properties):
        """The bytes of all clips."""
        self.assert_ran(
            self.launch(
                ["opensorasrc", *SMALL, *properties, "!", "video/x-raw,format=RGB", "!"]
                + ["filesink", "location=out.raw"]
            )
        )
        with open(self.path("out.raw"), "rb") as file:
            return file.read()

    def alone(self, prompt, *properties):
        return self.frames(f"prompt={prompt}", *properties)

    def test_text_file(self):
        self.write("prompts.txt", "# three clips\n" + "\n\n".join(PROMPTS) + "\n")
        data = self.frames("location=prompts.txt")
        self.assertEqual(len(data), 3 * CLIP)
        for i, prompt in enumerate(PROMPTS):
            self.assertEqual(data[i * CLIP : (i + 1) * CLIP], self.alone(prompt), prompt)

    def test_csv_file(self):
        rows = "".join(f'{i},"{prompt}"\n' for i, prompt in enumerate(PROMPTS))
        self.write("prompts.csv", "id,text\n" + rows)
        self.assert_ran(
            self.launch(
                ["opensorasrc", *SMALL, "location=prompts.csv", "!"]
                + "video/x-raw,framerate=16/1 ! videoconvert ! x264enc ! mp4mux !".split()
                + "filesink location=out.mp4".split()
            )
        )
        found = support.probe(self.path("out.mp4"))
        self.assertEqual(found["frames"], 15)
        self.assertAlmostEqual(float(found["duration"]), 15 / 16, delta=0.001)

    def test_negative_prompts(self):
        self.write("prompts.csv", f"text,neg\n{PROMPTS[0]},a blue star\n")
        self.assertEqual(
            self.frames("location=prompts.csv"),
            self.alone(PROMPTS[0], "negative-prompt=a blue star"),
        )

    def test_samples(self):
        data = self.alone(PROMPTS[0], "seed=5", "num-samples=2")
        self.assertEqual(len(data), 2 * CLIP)
        self.assertEqual(data[:CLIP], self.alone(PROMPTS[0], "seed=5"))
        self.assertEqual(data[CLIP:], self.alone(PROMPTS[0], "seed=6"))

    def test_long_prompt_is_cut(self):
        result = self.launch(
            ["opensorasrc", *SMALL, "prompt=" + "a red circle and " * 400, "!", "fakesink"]
        )
        self.assert_ran(result)
        self.assertIn("too long", result.out + result.err)

    def test_prompts_that_cannot_be_made(self):
        """Without skip-failed they end the stream, with it they are left out."""
        self.write("prompts.csv", f"text,ref\n{PROMPTS[0]},\n{PROMPTS[1]},gone.png\n{PROMPTS[2]},\n")
        description = ["opensorasrc", *SMALL, "location=prompts.csv"]
        self.assertIn("gone.png", self.launch([*description, "!", "fakesink"]).err)
        result = self.launch(
            [*description, "skip-failed=true", "!", "video/x-raw,format=RGB", "!"]
            + ["filesink", "location=out.raw"]
        )
        self.assert_ran(result)
        self.assertIn("A clip is left out", result.out + result.err)
        with open(self.path("out.raw"), "rb") as file:
            data = file.read()
        self.assertEqual(data[:CLIP], self.alone(PROMPTS[0]))
        self.assertEqual(data[CLIP:], self.alone(PROMPTS[2]))

    def test_empty_lines_of_a_stream(self):
        """A stream of text that holds nothing makes no clip, and no error."""
        self.assert_ran(
            self.launch(
                "fdsrc ! text/x-raw,format=utf8 ! opensoratextenc ! opensoradenoise".split()
                + SMALL
                + "! opensoravaedec ! fakesink".split(),
                stdin=b" \n",
            )
        )


if __name__ == "__main__":
    support.main()
