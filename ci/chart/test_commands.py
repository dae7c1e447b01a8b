"""The commands in the documentation: programs, commands and flags that exist, and values that the chart takes."""

import pathlib
import re
import shlex
import shutil
import subprocess
import unittest

from rendering import CHART, HELM, ROOT

WEBHOOKS = sorted(path.name for path in (ROOT / "webhooks").iterdir() if (path / "Cargo.toml").exists())
# Names that stand for any webhook.
ANY_WEBHOOK = ("NAME", "WEBHOOK")
KUBECTL_PLUGINS = ("krew", "podshaper")
# Commands of `kubectl podshaper` besides those of the webhooks.
PLUGIN = ("check", "ui")
FENCE = re.compile(r"(?ms)^ *```(\w*)\n(.*?)^ *```")

INLINE = re.compile(rf"`((?:kubectl|helm|(?:ci|kind)/[\w-]+|{'|'.join((*WEBHOOKS, *ANY_WEBHOOK))})\s[^`]+)`")


def commands():
    """Each command of a pipeline in a code block, or in backquotes in the text: (page, words)."""
    pages = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    for page in pages.stdout.split():
        text = (ROOT / page).read_text(encoding="utf-8")
        for span in INLINE.findall(FENCE.sub("", text)):
            for command in split(shlex.split(span)):
                yield page, command
        for language, block in FENCE.findall(text):
            if language not in ("", "sh"):
                continue
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                # Two spaces begin a remark.
                line = re.split(r" #| {3,}\S", line.strip())[0]
                try:
                    words = shlex.split(line)
                except ValueError:  # text, not a command
                    continue
                for command in split(words):
                    yield page, command


def split(words):
    command = []
    for word in words:
        if word in ("|", "||", "&&", ";"):
            yield command
            command = []
        elif word.startswith(("<<", ">")):
            break
        else:
            command.append(word)
    yield command


def contract(webhook):
    """The flags of each command of a webhook, besides `--help`, which all of them have."""
    flags = {"help": set()}
    for line in (ROOT / f"webhooks/{webhook}/tests/command_line.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            flags[line] = command = set()
        else:
            command.update(re.findall(r"(?:^|\s)(--?[a-z][\w-]*)", line.split(" env ")[0]))
    return flags


def used_flags(words):
    return [word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]


def help_flags(program, *command):
    text = subprocess.run([program, *command, "--help"], capture_output=True, text=True, check=False).stdout
    if program.endswith("kubectl"):
        text += subprocess.run([program, "options"], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"(?:^|[\s,])(--?[a-zA-Z][\w-]*)", text))


def kubectl():
    """The cluster's kubectl, if it is built."""
    build = subprocess.run([ROOT / "ci/go/build", "--path", "kube"], capture_output=True, text=True, check=False)
    built = pathlib.Path(build.stdout.strip(), "kubectl")
    return str(built) if built.is_file() else shutil.which("kubectl")


class Commands(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.commands = [(page, words) for page, words in commands() if words]

    def of(self, *programs):
        return [(page, words) for page, words in self.commands if words[0] in programs and len(words) > 1]

    def check_webhook(self, webhook, words):
        flags = contract(webhook)
        self.assertIn(words[0], flags)
        self.assertLessEqual(set(used_flags(words[1:])) - {"--help"}, flags[words[0]])

    def test_webhooks_have_the_commands_and_flags(self):
        found = self.of(*WEBHOOKS, *ANY_WEBHOOK)
        self.assertGreater(len(found), 10)
        for page, words in found:
            # A table begins with a column NAME.
            if words[1].isupper():
                continue
            for webhook in WEBHOOKS if words[0] in ANY_WEBHOOK else [words[0]]:
                with self.subTest(page, command=" ".join(words), webhook=webhook):
                    self.check_webhook(webhook, words[1:])

    def test_plugin_has_the_commands(self):
        found = [(page, words[2:]) for page, words in self.of("kubectl") if words[1] == "podshaper" and words[2:]]
        self.assertTrue(found)
        for page, words in found:
            with self.subTest(page, command=" ".join(words)):
                if words[0] in WEBHOOKS:
                    # The plugin itself has this flag.
                    self.check_webhook(words[0], [word for word in words[1:] if word != "--live"])
                elif words[0] not in ANY_WEBHOOK:
                    self.assertIn(words[0], PLUGIN)

    def test_scripts_exist(self):
        found = [(page, words) for page, words in self.commands if words[0].startswith(("ci/", "kind/"))]
        self.assertTrue(found)
        for page, words in found:
            with self.subTest(page, script=words[0]):
                self.assertTrue((ROOT / words[0]).exists())

    def test_helm_has_the_flags_and_the_chart_the_values(self):
        found = self.of("helm")
        self.assertTrue(found)
        for page, words in found:
            with self.subTest(page, command=" ".join(words)):
                self.assertLessEqual(set(used_flags(words)), help_flags(HELM, words[1]))
                values = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
                if not values:
                    continue
                options = [option for value in values for option in ("--set", value)]
                run = subprocess.run([HELM, "template", "r", CHART, *options], capture_output=True, text=True, check=False)
                self.assertEqual(run.returncode, 0, run.stderr)

    def test_kubectl_has_the_flags(self):
        program = kubectl()
        if not program:
            self.skipTest("there is no kubectl")
        found = [(page, words) for page, words in self.of("kubectl") if words[1] not in KUBECTL_PLUGINS]
        self.assertTrue(found)
        for page, words in found:
            verb, rest = self.verb(words[1:])
            command = [verb, rest[0]] if verb in ("create", "config", "rollout") and rest and rest[0].isalpha() else [verb]
            with self.subTest(page, command=" ".join(words)):
                flags = help_flags(program, *command)
                self.assertLessEqual(set(used_flags(words)), flags)

    @staticmethod
    def verb(words):
        """The command after global flags."""
        while words and words[0].startswith("-"):
            words = words[1:] if "=" in words[0] else words[2:]
        return (words[0], words[1:]) if words else ("", [])


if __name__ == "__main__":
    unittest.main()
